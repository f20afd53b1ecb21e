//! What to do about a fault: remedies, the ladder, the budget and the brake.

mod brake;
mod budget;
mod ladder;
mod remedy;

pub use brake::Brake;
pub use budget::Tries;
pub use ladder::{Plan, Ways, choose, ladder};
pub use remedy::Remedy;
