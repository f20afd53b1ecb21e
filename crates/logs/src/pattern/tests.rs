//! What the miner promises, over any lines.
