"""What a measurement costs: operations counted, passes timed, hours planned."""
