"""State-space models: hidden Markov models, linear dynamical systems, and what is made of them."""
