"""Broken inputs, kills and faults by the thousand: each ends right, or in one sentence."""
