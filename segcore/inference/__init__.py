"""From photo to class map: devices, models, runtimes and the pipeline."""
