"""What a run is asked to do: its settings and the presets."""
