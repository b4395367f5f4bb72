//! From the verdicts on single posts to one answer for the batch.
//!
//! Uses: `verdict`.

use std::ops::Range;

use kimberlite_plugin_sdk::{HandleError, Receipt};

use crate::verdict::Verdict;

/// How far a batch has come.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    delivered: Vec<Range<u32>>,
    refused: Vec<Range<u32>>,
    /// Why, of the first.
    reason: String,
}

impl Delivery {
    /// The verdict on a post with these items. An error ends the batch.
    pub(crate) fn take(&mut self, verdict: Verdict, items: Vec<Range<u32>>) -> Result<(), HandleError> {
        match verdict {
            Verdict::Delivered => self.delivered.extend(items),
            Verdict::Halt(reason) => return Err(HandleError::halt(reason)),
            Verdict::Later { after, reason } => return Err(self.later(reason, after)),
            // Only one can be the culprit: the others go on without it.
            Verdict::Refused(reason) if items.iter().map(ExactSizeIterator::len).sum::<usize>() == 1 => {
                if self.refused.is_empty() {
                    self.reason = reason;
                }
                self.refused.extend(items);
            }
            Verdict::Refused(reason) if self.delivered.is_empty() => {
                return Err(HandleError::too_large(reason));
            }
            // Halving would send again what has been delivered: that leaves the batch first.
            Verdict::Refused(reason) => return Err(self.later(reason, None)),
        }
        Ok(())
    }

    /// No post is left.
    pub(crate) fn end(self) -> Result<Receipt, HandleError> {
        if self.refused.is_empty() {
            return Ok(Receipt::delivered());
        }
        let refusal = HandleError::reject(self.reason);
        Err(self.refused.into_iter().fold(refusal, HandleError::which))
    }

    fn later(&mut self, reason: String, after: Option<std::time::Duration>) -> HandleError {
        let done = std::mem::take(&mut self.delivered);
        let error = done.into_iter().fold(HandleError::retry(reason), HandleError::done);
        match after {
            Some(after) => error.after(after),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Verdict {
        Verdict::Later { after: None, reason: "busy".to_owned() }
    }

    fn refused() -> Verdict {
        Verdict::Refused("no".to_owned())
    }

    fn items(range: Range<u32>) -> Vec<Range<u32>> {
        std::iter::once(range).collect()
    }

    #[test]
    fn what_was_delivered_before_a_failure_is_done() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.take(Verdict::Delivered, items(0..5)), Ok(()));
        assert_eq!(delivery.take(later(), items(5..6)), Err(HandleError::retry("busy").done(0..5)));
    }

    #[test]
    fn refused_post_of_many_is_halved() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.take(refused(), items(0..2)), Err(HandleError::too_large("no")));
    }

    #[test]
    fn nothing_delivered_is_halved_with_the_refused() {
        let mut delivery = Delivery::default();
        delivery.take(Verdict::Delivered, items(0..2)).unwrap();
        assert_eq!(delivery.take(refused(), items(2..4)), Err(HandleError::retry("no").done(0..2)));
    }

    #[test]
    fn single_culprit_is_refused_and_the_others_go_on() {
        let mut delivery = Delivery::default();
        delivery.take(refused(), items(0..1)).unwrap();
        delivery.take(Verdict::Delivered, items(1..2)).unwrap();
        delivery.take(Verdict::Refused("also".to_owned()), items(2..3)).unwrap();
        assert_eq!(delivery.end(), Err(HandleError::reject("no").which(0..1).which(2..3)));
    }

    #[test]
    fn halt_ends_it() {
        let mut delivery = Delivery::default();
        let halt = delivery.take(Verdict::Halt("key".to_owned()), items(0..1));
        assert_eq!(halt, Err(HandleError::halt("key")));
    }
}
