//! What is on the stream reaches a receiver, in order, whatever fails.

mod addresses;
mod dead_letters;
mod delivery;
mod killed;
mod manners;
mod order;
mod receivers;
mod world;
