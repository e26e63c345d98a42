// The kernels of activations.h for one vector type. Include like engine.h, after them.

template <class V>
const Activations* activations_of() {
  static const Activations kernels = {
      [](const BatchNormForward& a, const Parallel& parallel) {
        a.images.channels_last ? BatchNormRows<V>::forward(a, parallel) : BatchNormPlanes<V>::forward(a, parallel);
      },
      [](const BatchNormBackward& a, const Parallel& parallel) {
        a.images.channels_last ? BatchNormRows<V>::backward(a, parallel) : BatchNormPlanes<V>::backward(a, parallel);
      },
      &Pooling<V>::forward, &Pooling<V>::backward, &Rectification<V>::backward, &Rectification<V>::sums_of_pooled};
  return &kernels;
}
