"""Where the jobs of a sweep run: this machine's cores, a Ray cluster, Slurm."""
