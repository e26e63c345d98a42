"""What training at another scale takes, worked out of formulas and held against what small sizes take here."""
