//! MATH: competition problems answered in free text, by greedy generation (docs/EVALUATION.md).

pub mod boxed;
mod clean;
pub mod compare;
pub mod corruption;
mod expression;
