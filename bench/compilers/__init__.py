"""What is known of the GPU kernels without a GPU: what the compilers make of them, and what a GPU could."""
