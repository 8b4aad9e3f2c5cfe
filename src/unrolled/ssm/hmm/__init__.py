"""Hidden Markov models: inference, Baum–Welch, emissions."""
