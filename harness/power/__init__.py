"""Detection power: which planted defects the gate rejects, which clean runs it rejects, and both rates.

Takes the recorded study; gives rates and the page. `harness.studies` makes the runs.
"""

from harness.power.rates import Rate, false_alarms, found, places_named
from harness.power.record import Clean, Planted, PowerStudy, Sighting, read_power

__all__ = ["Clean", "Planted", "PowerStudy", "Rate", "Sighting", "false_alarms", "found", "places_named", "read_power"]
