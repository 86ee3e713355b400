"""Tables, figures and pages about finished runs, from their JSON alone: nothing here imports torch."""
