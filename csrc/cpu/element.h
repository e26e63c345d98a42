// What the elements of tensors are. The kernels compute in float, and in double where the elements are doubles; the elements of
// 16 bits are converted where they are loaded and stored.
#pragma once

#include <bit>
#include <cstdint>

namespace lth_sparse {

/// bfloat16: the upper half of a float.
struct Bfloat16 {
  uint16_t bits;

  Bfloat16() = default;
  /// Rounded to the nearest, to an even one between two; NaN stays NaN.
  explicit Bfloat16(float value) {
    const uint32_t whole = std::bit_cast<uint32_t>(value);
    bits = static_cast<uint16_t>(value != value ? (whole >> 16) | 0x40 : (whole + 0x7fff + ((whole >> 16) & 1)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

/// IEEE's float16: a sign, 5 bits of exponent and 10 of fraction.
struct Half {
  uint16_t bits;

  Half() = default;
  /// Rounded as Bfloat16; what is too large becomes infinite.
  explicit Half(float value) {
    constexpr uint32_t kInfinity = 0x7f800000, kTooLarge = 0x477ff000, kLeastNormal = 0x38800000;
    const uint32_t whole = std::bit_cast<uint32_t>(value), size = whole & 0x7fffffff;
    uint32_t rounded;
    if (size >= kTooLarge)
      rounded = size > kInfinity ? 0x7e00 : 0x7c00;
    else if (size < kLeastNormal)
      // Next to 0.5 a float's last bit is worth what that of a small float16 is, so the addition rounds to it.
      rounded = std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    else
      rounded = (size - (112u << 23) + 0xfff + ((size >> 13) & 1)) >> 13;
    bits = static_cast<uint16_t>(((whole >> 16) & 0x8000) | rounded);
  }
  operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, size = bits & 0x7fff;
    // Without a leading one the fraction counts in units of 2^-24. With it, the exponents' biases are 112 apart, and what is not
    // finite has the greatest of them.
    const float value = size < 0x400 ? static_cast<float>(size) * 0x1p-24f
                                     : std::bit_cast<float>((size << 13) + ((size < 0x7c00 ? 112u : 224u) << 23));
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
};

enum class Element : int { kFloat = 0, kDouble = 1, kBfloat16 = 2, kHalf = 3 };

/// Whether the kernels compute in another type.
inline bool is_converted(Element element) { return element == Element::kBfloat16 || element == Element::kHalf; }

inline int64_t bytes_of(Element element) { return element == Element::kDouble ? 8 : is_converted(element) ? 2 : 4; }
/// Of what the kernels compute in.
inline int64_t bytes_computed_in(Element element) { return element == Element::kDouble ? 8 : 4; }

/// Calls `use` with a value of the type of the elements, in kernels that compute in T.
template <typename T, typename Use>
void with_element(Element element, const Use& use) {
  if constexpr (sizeof(T) == 8) {
    use(T());
  } else {
    switch (element) {
      case Element::kBfloat16: return use(Bfloat16());
      case Element::kHalf: return use(Half());
      default: return use(T());
    }
  }
}

}  // namespace lth_sparse
