//! longshore-agent: the kubelet's part on one machine.
