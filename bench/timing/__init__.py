"""How a side is timed, and what is made of its times: ratios, and fractions of what the machine can do."""
