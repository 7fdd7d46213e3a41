"""From stored results to pages: results and their witnesses, figures, notebooks, sweeps, claims."""
