//! Two caches answering the same questions: what the pairs say.

use crate::base::stats::wilson;
use crate::schema::Accuracy;

/// Outcomes of the same questions by the cache under test and by the reference, in pairs of (correct, reference correct).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairTable {
    /// Both correct.
    pub both: usize,
    /// Only the reference correct.
    pub lost: usize,
    /// Only the cache under test correct.
    pub gained: usize,
    /// Neither correct.
    pub neither: usize,
}

impl PairTable {
    /// Counts `pairs`.
    pub fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut table = PairTable::default();
        for pair in pairs {
            match pair {
                (true, true) => table.both += 1,
                (false, true) => table.lost += 1,
                (true, false) => table.gained += 1,
                (false, false) => table.neither += 1,
            }
        }
        table
    }

    /// The score it amounts to, with its interval, difference and p; the other fields are left to the benchmark.
    pub fn accuracy(&self) -> Accuracy {
        let questions = self.both + self.lost + self.gained + self.neither;
        let correct = self.both + self.gained;
        let reference = self.both + self.lost;
        let rate = |n: usize| if questions == 0 { 0.0 } else { n as f64 / questions as f64 };
        Accuracy {
            questions,
            correct,
            accuracy: rate(correct),
            interval: Some(wilson(correct, questions)),
            reference_correct: Some(reference),
            delta: Some(rate(correct) - rate(reference)),
            both: Some(self.both),
            lost: Some(self.lost),
            gained: Some(self.gained),
            neither: Some(self.neither),
            mcnemar_p: Some(mcnemar_exact(self.lost, self.gained)),
            ..Default::default()
        }
    }
}

/// McNemar's exact two-sided p: the chance, were a change in either direction equally likely, of a split of the
/// `lost + gained` discordant pairs at least as uneven as this one.
pub fn mcnemar_exact(lost: usize, gained: usize) -> f64 {
    let n = lost + gained;
    // C(n, k)/2^n by logarithms: neither factor need fit a float.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for k in 1..=lost.min(gained) {
        log_term += ((n - k + 1) as f64).ln() - (k as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_agrees_with_the_binomial_by_hand() {
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert_eq!(mcnemar_exact(3, 3), 1.0);
        assert!((mcnemar_exact(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        // 2·(1 + 10 + 45)/1024
        assert!((mcnemar_exact(2, 8) - 112.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar_exact(8, 2), mcnemar_exact(2, 8));
        let many = mcnemar_exact(4000, 4100);
        assert!(many > 0.2 && many < 0.3, "{many}");
    }

    #[test]
    fn the_table_gives_the_score_and_its_difference() {
        let pairs = [(true, true), (true, true), (false, true), (true, false), (false, false)];
        let table = PairTable::of(pairs);
        assert_eq!(table, PairTable { both: 2, lost: 1, gained: 1, neither: 1 });
        let score = table.accuracy();
        assert_eq!((score.questions, score.correct, score.reference_correct), (5, 3, Some(3)));
        assert_eq!((score.accuracy, score.delta, score.mcnemar_p), (0.6, Some(0.0), Some(1.0)));
    }
}
