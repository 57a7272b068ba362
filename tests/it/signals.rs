//! Being told to stop, and being killed.
