// The kernels of one instruction set: see kernels.h.
//
// Include inside the target of an instruction set (../target.h), in its namespace.

template <class V>
LTH_SPARSE_INLINE V kept(V v, const uint32_t* mask, int vector) {
  return mask == nullptr ? v : v.where_bits(mask[vector]);
}

template <class V, int Vectors, bool First, bool Last>
void tile(const inference::TileCall& call) {
  constexpr int L = V::width;
  const inference::Entry* const entries = call.entries;
  const int64_t step = call.in_step;
  const V least = V::broadcast(call.least), greatest = V::broadcast(call.greatest);
  for (int64_t o = 0; o < call.outputs; ++o) {
    V sums[Vectors];
    float* const kept_sums = call.sums + o * Vectors * L;
    if constexpr (First) {
      const V bias = V::broadcast(call.bias[o]);
      LTH_SPARSE_UNROLL
      for (int v = 0; v < Vectors; ++v) sums[v] = bias;
    } else {
      LTH_SPARSE_UNROLL
      for (int v = 0; v < Vectors; ++v) sums[v] = V::load(kept_sums + v * L);
    }
    const inference::Entry* const end = entries + call.starts[o + 1];
    if (step == L) {
      for (const inference::Entry* entry = entries + call.starts[o]; entry != end; ++entry) {
        const V value = V::broadcast(entry->value);
        const float* const in = in_a_register(call.in + entry->offset);
        LTH_SPARSE_UNROLL
        for (int v = 0; v < Vectors; ++v) sums[v] = sums[v].plus_product(value, V::load(in + v * L));
      }
    } else {
      for (const inference::Entry* entry = entries + call.starts[o]; entry != end; ++entry) {
        const V value = V::broadcast(entry->value);
        const float* in = call.in + entry->offset;
        LTH_SPARSE_UNROLL
        for (int v = 0; v < Vectors; ++v, in += step) sums[v] = sums[v].plus_product(value, V::load(in));
      }
    }
    if constexpr (Last) {
      float* const out = call.out + o * call.out_step;
      if (call.added != nullptr) {
        const float* const added = call.added + o * call.added_step;
        LTH_SPARSE_UNROLL
        for (int v = 0; v < Vectors; ++v) sums[v] = sums[v] + V::load(added + v * L);
      }
      LTH_SPARSE_UNROLL
      for (int v = 0; v < Vectors; ++v) kept(sums[v].clamped(least, greatest), call.mask, v).store(out + v * L);
    } else {
      LTH_SPARSE_UNROLL
      for (int v = 0; v < Vectors; ++v) sums[v].store(kept_sums + v * L);
    }
  }
}

template <class V, int Vectors, int Group>
void dense_tile(const inference::DenseTileCall& call) {
  constexpr int L = V::width;
  V sums[Group][Vectors];
  LTH_SPARSE_UNROLL
  for (int o = 0; o < Group; ++o) {
    const V bias = V::broadcast(call.bias[o]);
    LTH_SPARSE_UNROLL
    for (int v = 0; v < Vectors; ++v) sums[o][v] = bias;
  }
  const float* weights = call.weights;
  for (int64_t tap = 0; tap < call.taps; ++tap, weights += Group) {
    const float* in = call.in + call.offsets[tap];
    V x[Vectors];
    LTH_SPARSE_UNROLL
    for (int v = 0; v < Vectors; ++v, in += call.in_step) x[v] = V::load(in);
    LTH_SPARSE_UNROLL
    for (int o = 0; o < Group; ++o) {
      const V value = V::broadcast(weights[o]);
      LTH_SPARSE_UNROLL
      for (int v = 0; v < Vectors; ++v) sums[o][v] = sums[o][v].plus_product(value, x[v]);
    }
  }
  const V least = V::broadcast(call.least), greatest = V::broadcast(call.greatest);
  LTH_SPARSE_UNROLL
  for (int o = 0; o < Group; ++o) {
    if (o >= call.outputs) break;
    float* const out = call.out + o * call.out_step;
    LTH_SPARSE_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      V sum = sums[o][v];
      if (call.added != nullptr) sum = sum + V::load(call.added + o * call.added_step + v * L);
      kept(sum.clamped(least, greatest), call.mask, v).store(out + v * L);
    }
  }
}

template <class V>
void reduce(const inference::ReduceCall& call) {
  constexpr int L = V::width;
  for (int64_t v = 0; v < call.vectors; ++v) {
    const float* const in = call.in + v * call.in_step;
    V result = V::load(in + call.offsets[0]);
    if (call.greatest) {
      for (int64_t tap = 1; tap < call.taps; ++tap) result = V::greater(result, V::load(in + call.offsets[tap]));
    } else {
      for (int64_t tap = 1; tap < call.taps; ++tap) result = result + V::load(in + call.offsets[tap]);
      result = result * V::broadcast(call.scale);
    }
    kept(result, call.mask, static_cast<int>(v)).store(call.out + v * L);
  }
}

template <class V>
void combine(const inference::CombineCall& call) {
  constexpr int L = V::width;
  const V least = V::broadcast(call.least), greatest = V::broadcast(call.greatest);
  for (int64_t v = 0; v < call.vectors; ++v) {
    V result = V::load(call.a + v * L);
    if (call.b != nullptr) result = result + V::load(call.b + v * L);
    kept(result.clamped(least, greatest), call.mask, static_cast<int>(v)).store(call.out + v * L);
  }
}

template <class V>
float total(const float* in, int64_t vectors) {
  constexpr int L = V::width;
  V sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  for (int64_t v = 0; v < vectors; ++v) sums[v % 4] = sums[v % 4] + V::load(in + v * L);
  float parts[4] = {0, 0, 0, 0};
  V::add_sums(sums, parts);
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

template <class V>
void every_second(const float* from, int64_t count, float* to) {
  constexpr int L = V::width;
  int64_t k = 0;
  for (; k + L < count; k += L) {  // So that no element behind the last one is read.
    V even, odd;
    V::deinterleave(V::load(from + 2 * k), V::load(from + 2 * k + L), even, odd);
    even.store(to + k);
  }
  for (; k < count; ++k) to[k] = from[2 * k];
}

template <class V>
void images_to_lanes(const float* from, int64_t image_step, int images, int64_t count, float* to) {
  constexpr int L = V::width;
  for (int64_t k = 0; k < count; k += L) {
    const int n = static_cast<int>(std::min<int64_t>(L, count - k));
    V rows[L];
    for (int i = 0; i < L; ++i) rows[i] = i >= images ? V::zero() : V::load(from + i * image_step + k, n);
    V::transpose(rows);
    for (int i = 0; i < n; ++i) rows[i].store(to + (k + i) * L);
  }
}

template <class V>
void lanes_to_images(const float* from, int64_t count, float* to, int64_t image_step, int images) {
  constexpr int L = V::width;
  for (int64_t k = 0; k < count; k += L) {
    const int n = static_cast<int>(std::min<int64_t>(L, count - k));
    V rows[L];
    for (int i = 0; i < L; ++i) rows[i] = i < n ? V::load(from + (k + i) * L) : V::zero();
    V::transpose(rows);
    for (int i = 0; i < images; ++i) rows[i].store(to + i * image_step + k, n);
  }
}

template <class V, int Group, int DenseVectors>
struct TableOf {
  template <int Vectors>
  static void add(inference::Kernels& table) {
    table.tile[Vectors - 1][0][0] = &tile<V, Vectors, false, false>;
    table.tile[Vectors - 1][0][1] = &tile<V, Vectors, false, true>;
    table.tile[Vectors - 1][1][0] = &tile<V, Vectors, true, false>;
    table.tile[Vectors - 1][1][1] = &tile<V, Vectors, true, true>;
    if constexpr (Vectors <= DenseVectors) table.dense[Vectors - 1] = &dense_tile<V, Vectors, Group>;
    if constexpr (Vectors < inference::kMostVectors) add<Vectors + 1>(table);
  }

  static const inference::Kernels* get() {
    static const inference::Kernels table = [] {
      inference::Kernels made{};
      made.lanes = V::width;
      made.dense_group = Group;
      made.dense_vectors = DenseVectors;
      add<1>(made);
      made.reduce = &reduce<V>;
      made.combine = &combine<V>;
      made.total = &total<V>;
      made.every_second = &every_second<V>;
      made.images_to_lanes = &images_to_lanes<V>;
      made.lanes_to_images = &lanes_to_images<V>;
      return made;
    }();
    return &table;
  }
};
