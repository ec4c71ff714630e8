//! What a fit returns, and what the fits share.

use super::real::Real;

/// The pair that a group's codes are read back with: `x ≈ scale·code + minimum`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupFit<P> {
    /// s.
    pub scale: P,
    /// m.
    pub minimum: P,
}

impl<P: Real> GroupFit<P> {
    /// The value of a code: one multiplication and one addition in f32, rounded to `P`.
    #[inline]
    pub fn value(&self, code: u8) -> P {
        P::narrow(self.scale.widen() * f32::from(code) + self.minimum.widen())
    }
}

/// Least and greatest of a group.
pub(super) fn extremes(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), x| (min.min(*x), max.max(*x)))
}

/// The fit of a group whose numbers are all `value`: read back exactly.
pub(super) fn constant<P: Real>(value: f32, codes: &mut [u8]) -> GroupFit<P> {
    codes.fill(0);
    GroupFit { scale: P::narrow(1.0), minimum: P::narrow(value) }
}
