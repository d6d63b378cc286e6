//! Pretended containers.
