"""What a measurement would take, before anything is drawn: ``passgrad measure --dry-run``."""

from passgrad.measurement.forecast.forecast import Forecast, forecast

__all__ = ["Forecast", "forecast"]
