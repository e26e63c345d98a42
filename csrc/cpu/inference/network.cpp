#include "network.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <stdexcept>
#include <tuple>

#include "../huge_pages.h"

namespace lth_sparse::inference {
namespace {

/// From this share of a vector on, a group of images is computed in lanes of images.
constexpr double kImagesInLanes = 0.7;

struct Place {
  int64_t root;     // the value whose buffer it lies in
  int64_t channel;  // of that value, from which on
};

/// Where values lie in others: what is concatenated is computed where the result has it, where it can be.
std::vector<Place> places(const Description& network) {
  std::vector<Place> result;
  for (int64_t value = 0; value < static_cast<int64_t>(network.values.size()); ++value) result.push_back({value, 0});
  for (auto operation = network.operations.rbegin(); operation != network.operations.rend(); ++operation) {
    if (operation->kind != Kind::kConcatenate) continue;
    int64_t channel = 0;
    for (const int64_t part : operation->operands) {
      if (result[part].root == part) {
        const Place whole = result[operation->result];
        for (Place& each : result)
          if (each.root == part) each = {whole.root, whole.channel + channel + each.channel};
      }
      channel += network.values[part].channels;
    }
  }
  return result;
}

}  // namespace

/// The buffers of one run, zeros at first: what is around the images stays so.
class Network::Buffers {
 public:
  explicit Buffers(const std::vector<int64_t>& floats) {
    constexpr size_t kLine = 64;
    size_t bytes = 0;
    std::vector<size_t> at;
    for (const int64_t each : floats) {
      at.push_back(bytes);
      bytes += (static_cast<size_t>(each) * sizeof(float) + kLine - 1) / kLine * kLine + 5 * kLine;
    }
    const size_t alignment = bytes >= kHugePage / 4 ? kHugePage : kLine;
    bytes = std::max((bytes + alignment - 1) / alignment, size_t{1}) * alignment;
    memory_ = static_cast<char*>(std::aligned_alloc(alignment, bytes));
    if (memory_ == nullptr) throw std::bad_alloc();
    advise_huge_pages(memory_, bytes, 1);
    std::memset(memory_, 0, bytes);
    for (const size_t each : at) pointers_.push_back(reinterpret_cast<float*>(memory_ + each));
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() { std::free(memory_); }

  float* const* pointers() const { return pointers_.data(); }

 private:
  char* memory_;
  std::vector<float*> pointers_;
};

Network::Network(Description description, const Kernels& kernels, int threads)
    : description_(std::move(description)), kernels_(kernels), threads_(threads) {}

Network::~Network() = default;

Plan Network::planned(const Layout& layout) const {
  const std::vector<Place> place = places(description_);
  const int64_t values = static_cast<int64_t>(description_.values.size());
  // Images of one size have the same zeros around them, so that planes of pixels line up and buffers can be used again.
  std::map<std::pair<int64_t, int64_t>, Halo> halos;
  std::vector<int64_t> last(values, -1), first(values, -1);  // operations that use a root
  for (int64_t k = 0; k < static_cast<int64_t>(description_.operations.size()); ++k) {
    const Operation& operation = description_.operations[k];
    std::vector<int64_t> used;
    if (operation.kind != Kind::kInput) used = operation.operands;
    if (operation.added >= 0) used.push_back(operation.added);
    if (operation.kind != Kind::kOutput) used.push_back(operation.result);
    for (const int64_t value : used) {
      const int64_t root = place[value].root;
      if (first[root] < 0) first[root] = k;
      last[root] = k;
    }
    if (operation.kind == Kind::kConvolution) {
      const Shape& in = description_.values[operation.operands[0]];
      const Halo halo = reach(layout, operation, in, description_.values[operation.result]);
      Halo& known = halos[{in.height, in.width}];
      known = {std::max(known.rows, halo.rows), std::max(known.columns, halo.columns)};
    }
  }

  Plan plan;
  std::vector<Operand> operands;
  std::vector<int64_t> buffers(values, -1);
  std::vector<std::tuple<Shape, int64_t, int64_t>> owners;  // of each buffer: shape, and from when it is free
  for (int64_t value = 0; value < values; ++value) {
    const Shape& shape = description_.values[value];
    operands.push_back({shape, halos[{shape.height, shape.width}], {}});
  }
  const auto allocate = [&](int64_t root, int64_t now) {
    const Shape& shape = description_.values[root];
    int64_t floats = 0;
    Placement placement = layout.placed(shape, operands[root].halo, floats);
    for (size_t k = 0; k < owners.size(); ++k) {
      if (std::get<0>(owners[k]) == shape && std::get<1>(owners[k]) < now) {
        placement.buffer = static_cast<int64_t>(k);
        break;
      }
    }
    if (placement.buffer < 0) {
      placement.buffer = static_cast<int64_t>(owners.size());
      owners.emplace_back(shape, 0, 0);
      plan.floats.push_back(floats);
    }
    std::get<1>(owners[placement.buffer]) = last[root];
    operands[root].place = placement;
  };
  const auto operand = [&](int64_t value) {
    Operand result = operands[value];
    result.place = operands[place[value].root].place;
    result.place.origin += place[value].channel * result.place.channel_step;
    return result;
  };

  const Planner planner{kernels_, layout, threads_};
  for (int64_t k = 0; k < static_cast<int64_t>(description_.operations.size()); ++k) {
    const Operation& operation = description_.operations[k];
    if (operation.kind != Kind::kOutput) {
      const int64_t root = place[operation.result].root;
      if (first[root] == k) allocate(root, k);
    }
    const auto add = [&](std::unique_ptr<Step> step) {
      plan.steps.push_back(std::move(step));
      plan.operations.push_back(k);
    };
    switch (operation.kind) {
      case Kind::kInput: add(planner.input(operation.operands[0], operand(operation.result))); break;
      case Kind::kOutput: add(planner.output(operation.result, operand(operation.operands[0]))); break;
      case Kind::kConvolution: {
        Operand added;
        if (operation.added >= 0) added = operand(operation.added);
        add(planner.convolution(operation, operand(operation.operands[0]), operation.added >= 0 ? &added : nullptr,
                                operand(operation.result)));
        break;
      }
      case Kind::kMaxPool:
      case Kind::kAveragePool: add(planner.pool(operation, operand(operation.operands[0]), operand(operation.result))); break;
      case Kind::kGlobalAverage: add(planner.global_average(operand(operation.operands[0]), operand(operation.result))); break;
      case Kind::kAdd: {
        const Operand b = operand(operation.operands[1]);
        add(planner.combine(operation.bounds, operand(operation.operands[0]), &b, operand(operation.result)));
        break;
      }
      case Kind::kClamp: add(planner.combine(operation.bounds, operand(operation.operands[0]), nullptr, operand(operation.result))); break;
      case Kind::kConcatenate: {
        int64_t channel = 0;
        for (const int64_t part : operation.operands) {
          Operand to = operand(operation.result);
          to.shape = description_.values[part];
          to.place.origin += channel * to.place.channel_step;
          const Operand from = operand(part);
          if (from.place.buffer != to.place.buffer || from.place.origin != to.place.origin)
            add(planner.combine({}, from, nullptr, to));
          channel += to.shape.channels;
        }
        break;
      }
    }
  }
  return plan;
}

Network::Prepared& Network::prepared(bool of_images) {
  const std::lock_guard<std::mutex> guard(mutex_);
  Prepared& result = prepared_[of_images];
  if (result.plan == nullptr) result.plan = std::make_unique<Plan>(planned({kernels_.lanes, of_images}));
  return result;
}

int64_t Network::bytes(bool of_images) {
  int64_t result = 0;
  for (const int64_t floats : prepared(of_images).plan->floats) result += floats * static_cast<int64_t>(sizeof(float));
  return result;
}

void Network::run_group(bool of_images, const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t first,
                        int images, const Parallel& parallel, std::vector<double>* seconds) {
  Prepared& ready = prepared(of_images);
  std::unique_ptr<Buffers> buffers;
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (!ready.free.empty()) {
      buffers = std::move(ready.free.back());
      ready.free.pop_back();
    }
  }
  if (buffers == nullptr) buffers = std::make_unique<Buffers>(ready.plan->floats);
  std::vector<const float*> from(inputs.size());
  std::vector<float*> to(outputs.size());
  for (const Operation& operation : description_.operations) {
    if (operation.kind == Kind::kInput) {
      const Shape& shape = description_.values[operation.result];
      from[operation.operands[0]] = inputs[operation.operands[0]] + first * shape.channels * shape.pixels();
    } else if (operation.kind == Kind::kOutput) {
      const Shape& shape = description_.values[operation.operands[0]];
      to[operation.result] = outputs[operation.result] + first * shape.channels * shape.pixels();
    }
  }
  const Frame frame{buffers->pointers(), from.data(), to.data(), images};
  for (size_t k = 0; k < ready.plan->steps.size(); ++k) {
    const Step& step = *ready.plan->steps[k];
    const auto begun = std::chrono::steady_clock::now();
    parallel(step.tasks(), [&](int64_t begin, int64_t end) { step.run(frame, begin, end); });
    if (seconds != nullptr)
      (*seconds)[ready.plan->operations[k]] += std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  }
  const std::lock_guard<std::mutex> guard(mutex_);
  ready.free.push_back(std::move(buffers));
}

void Network::run_all(const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t batch,
                      const Parallel& parallel, std::vector<double>* seconds) {
  const int64_t lanes = kernels_.lanes;
  for (int64_t first = 0; first < batch;) {
    const int64_t images = std::min(lanes, batch - first);
    if (static_cast<double>(images) >= kImagesInLanes * static_cast<double>(lanes)) {
      run_group(true, inputs, outputs, first, static_cast<int>(images), parallel, seconds);
      first += images;
    } else {
      run_group(false, inputs, outputs, first, 1, parallel, seconds);
      ++first;
    }
  }
}

void Network::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t batch,
                  const Parallel& parallel) {
  run_all(inputs, outputs, batch, parallel, nullptr);
}

std::vector<double> Network::timed(const std::vector<const float*>& inputs, const std::vector<float*>& outputs, int64_t batch,
                                   const Parallel& parallel) {
  std::vector<double> seconds(description_.operations.size(), 0.0);
  run_all(inputs, outputs, batch, parallel, &seconds);
  return seconds;
}

}  // namespace lth_sparse::inference
