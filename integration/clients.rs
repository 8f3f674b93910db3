//! The clients in the binary.

mod simulator;
