"""What keeps the check from being made."""

from __future__ import annotations


class CheckError(Exception):
    """Nothing can be said about the working tree; the message is one sentence."""
