//! Layer 2: instruments that know nothing of models.
