"""The parts of serve_a_ticket.py."""
