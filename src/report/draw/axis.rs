//! From values to places on an axis, and where its ticks lie.

use crate::report::chart::{Axis, Scale};

/// An axis with its range, in transformed coordinates.
#[derive(Debug, Clone)]
pub struct Ruler {
    /// Spacing.
    pub scale: Scale,
    /// Ends, transformed.
    pub range: (f64, f64),
    /// Ticks: transformed place and label.
    pub ticks: Vec<(f64, String)>,
}

impl Ruler {
    /// A ruler for `axis` that shows all `values`. Values that the scale has no place for (not finite; not positive on a
    /// logarithm) are left out; without any, it runs from 0 to 1.
    pub fn new(axis: &Axis, values: impl IntoIterator<Item = f64>) -> Self {
        let mut places: Vec<f64> = values.into_iter().filter_map(|v| forward(axis.scale, v)).collect();
        if places.is_empty() {
            places = vec![0.0, 1.0];
        }
        let low = places.iter().copied().fold(f64::INFINITY, f64::min);
        let high = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (range, ticks) = match axis.scale {
            Scale::Linear => linear(low, high),
            Scale::Log2 => log2(low, high),
            Scale::Log10 => log10(low, high),
            Scale::Symlog(threshold) => symlog(low, high, threshold),
        };
        let ticks = ticks.into_iter().map(|place| (place, axis.form.tick(backward(axis.scale, place)))).collect();
        Ruler { scale: axis.scale, range, ticks }
    }

    /// Place of `value`, kept within the range; `None` where the scale has none.
    pub fn place(&self, value: f64) -> Option<f64> {
        forward(self.scale, value).map(|place| place.clamp(self.range.0, self.range.1))
    }
}

fn forward(scale: Scale, value: f64) -> Option<f64> {
    let place = match scale {
        Scale::Linear => value,
        Scale::Log2 => value.log2(),
        Scale::Log10 => value.log10(),
        Scale::Symlog(threshold) => value.signum() * (value.abs() / threshold).ln_1p(),
    };
    place.is_finite().then_some(place)
}

fn backward(scale: Scale, place: f64) -> f64 {
    match scale {
        Scale::Linear => place,
        Scale::Log2 => place.exp2(),
        Scale::Log10 => 10f64.powf(place),
        Scale::Symlog(threshold) => place.signum() * place.abs().exp_m1() * threshold,
    }
}

type Layout = ((f64, f64), Vec<f64>);

/// Steps of 1, 2 or 5 × 10^n, about five of them; from 0 unless values are negative.
fn linear(low: f64, high: f64) -> Layout {
    let low = low.min(0.0);
    let span = if high > low { high - low } else { 1.0 };
    let rough = span / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(rough);
    let (first, last) = ((low / step).floor() as i64, ((low + span) / step - 1e-9).ceil() as i64);
    let ticks: Vec<f64> = (first..=last.max(first + 1)).map(|i| i as f64 * step).collect();
    ((ticks[0], ticks[ticks.len() - 1]), ticks)
}

/// A tick at every doubling, or every second one when there are many.
fn log2(low: f64, high: f64) -> Layout {
    let (first, last) = ((low + 1e-9).floor(), (high - 1e-9).ceil().max((low + 1e-9).floor() + 1.0));
    let step = ((last - first) / 7.0).ceil().max(1.0);
    let ticks = steps(first, last, step);
    let pad = (last - first) * 0.04;
    ((first - pad, last + pad), ticks)
}

/// A tick at every decade; at 1, 2 and 5 where there are few decades.
fn log10(low: f64, high: f64) -> Layout {
    let pad = ((high - low) * 0.06).max(0.05);
    let (low, high) = (low - pad, high + pad);
    let decades = steps(low.floor(), high.ceil(), (((high - low) / 6.0).ceil()).max(1.0));
    let within = |places: Vec<f64>| places.into_iter().filter(|p| (low..=high).contains(p)).collect::<Vec<_>>();
    let fine: Vec<f64> = if high - low < 2.5 {
        decades.iter().flat_map(|d| [1.0f64, 2.0, 5.0].map(|m| d + m.log10())).collect()
    } else {
        decades.clone()
    };
    let finest = if high - low < 0.7 {
        let parts = [1.0f64, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];
        decades.iter().flat_map(|d| parts.map(|m| d + m.log10())).collect()
    } else {
        fine
    };
    ((low, high), within(finest))
}

/// Ticks at 0 and at threshold × 10^n on both sides.
fn symlog(low: f64, high: f64, threshold: f64) -> Layout {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let pad = ((high - low) * 0.06).max(0.1);
    let (low, high) = (low - pad, high + pad);
    let mut ticks = vec![0.0];
    for n in 0..12 {
        let place = forward(Scale::Symlog(threshold), threshold * 10f64.powi(n)).unwrap_or(0.0);
        ticks.extend([place, -place].into_iter().filter(|p| (low..=high).contains(p)));
    }
    ticks.sort_by(f64::total_cmp);
    ((low, high), ticks)
}

fn steps(first: f64, last: f64, step: f64) -> Vec<f64> {
    let count = ((last - first) / step + 1e-9).floor().clamp(0.0, 100.0) as usize;
    (0..=count).map(|i| first + i as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::NumberForm;

    fn ruler(scale: Scale, form: NumberForm, values: &[f64]) -> Ruler {
        Ruler::new(&Axis { label: String::new(), scale, form }, values.iter().copied())
    }

    fn labels(ruler: &Ruler) -> Vec<&str> {
        ruler.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        let r = ruler(Scale::Linear, NumberForm::Plain, &[3.0, 97.0]);
        assert_eq!(labels(&r), ["0", "20", "40", "60", "80", "100"]);
        let r = ruler(Scale::Log2, NumberForm::Tokens, &[4096.0, 32768.0]);
        assert_eq!(labels(&r), ["4k", "8k", "16k", "32k"]);
        let r = ruler(Scale::Symlog(0.001), NumberForm::Percent, &[-0.0001, 5.2]);
        assert_eq!(labels(&r), ["0 %", "0.1 %", "1 %", "10 %", "100 %"]);
        let r = ruler(Scale::Log10, NumberForm::Plain, &[0.03, 34.0]);
        assert_eq!(labels(&r), ["0.1", "1", "10"]);
    }

    #[test]
    fn no_values_and_one_value_still_make_an_axis() {
        for scale in [Scale::Linear, Scale::Log2, Scale::Log10, Scale::Symlog(0.01)] {
            for values in [&[][..], &[0.0], &[7.0], &[f64::NAN], &[f64::INFINITY, -1.0]] {
                let r = ruler(scale, NumberForm::Plain, values);
                assert!(
                    r.range.1 > r.range.0 && r.range.0.is_finite() && r.range.1.is_finite(),
                    "{scale:?} {values:?}"
                );
            }
        }
    }

    #[test]
    fn a_logarithm_has_no_place_for_zero() {
        assert_eq!(ruler(Scale::Log10, NumberForm::Plain, &[1.0]).place(0.0), None);
    }
}
