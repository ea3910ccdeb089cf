"""What the server does by itself: policies that run at their times, and the memory of how each run ended."""

from server.policies.keeper import Keeper, Kept
from server.policies.report import Policy, Report, Run, Tell

__all__ = ["Keeper", "Kept", "Policy", "Report", "Run", "Tell"]
