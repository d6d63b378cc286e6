//! The node protocol: what agent and server say to each other outside the Kubernetes API.
