//! What benchmarks have read and tokenized, kept for all caches of one model.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::rc::Rc;

use crate::Result;

/// Windows of text, prompts, questions: each read once, by its type and a key that names all it depends on beside the model. What is
/// checked before anything is measured is what is scored after.
#[derive(Default)]
pub struct Readings(HashMap<(TypeId, String), Rc<dyn Any>>);

impl Readings {
    /// What `read` gives, or gave for this key before.
    ///
    /// # Errors
    /// Those of `read`, which is then asked again the next time.
    pub fn get<T: 'static>(&mut self, key: String, read: impl FnOnce() -> Result<T>) -> Result<Rc<T>> {
        let key = (TypeId::of::<T>(), key);
        if let Some(known) = self.0.get(&key).and_then(|known| known.clone().downcast().ok()) {
            return Ok(known);
        }
        let reading = Rc::new(read()?);
        self.0.insert(key, reading.clone());
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn what_was_read_is_not_read_again_and_what_failed_is() {
        let mut readings = Readings::default();
        let mut times = 0;
        let mut read = |key: &str, value: Result<u32>| {
            let got = readings.get(key.into(), || {
                times += 1;
                value
            });
            (got.ok().map(|v| *v), times)
        };
        assert_eq!(read("a", Ok(7)), (Some(7), 1));
        assert_eq!(read("a", Ok(8)), (Some(7), 1));
        assert_eq!(read("b", Err(Error::Interrupted)), (None, 2));
        assert_eq!(read("b", Ok(9)), (Some(9), 3));
        assert_eq!(*readings.get("a".into(), || Ok("of another type")).unwrap(), "of another type");
    }
}
