//! The alignment that a file states. candle divides by it without a look at it, so it is looked at on its way to candle, wherever it stands.

use std::io::{self, Read, Seek, SeekFrom};

const KEY: &[u8] = b"general.alignment";

/// Passes on what candle reads of a header, and fails where that is an alignment that is no power of two.
pub(super) struct Checked<R> {
    file: R,
    last: Last,
}

/// What was read last, as far as it matters. candle reads a key, a type and a number in one call each.
enum Last {
    Key,
    TypeOfAlignment,
    Other,
}

impl<R> Checked<R> {
    pub(super) fn new(file: R) -> Self {
        Checked { file, last: Last::Other }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.last = match self.last {
            // GGUF's numbers for integers of 8, 16 and 32 bits; candle takes any other type for no alignment.
            Last::Key if bytes.len() == 4 && bytes[0] < 6 && bytes[1..] == [0; 3] => Last::TypeOfAlignment,
            Last::TypeOfAlignment => {
                let stated = bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
                if !stated.is_power_of_two() {
                    return Err(io::Error::other(format!("its alignment of {stated} is no power of two")));
                }
                Last::Other
            }
            // Zeros at the end of a text are none of it to candle.
            _ if bytes.strip_prefix(KEY).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) => Last::Key,
            _ => Last::Other,
        };
        Ok(())
    }
}

impl<R: Seek> Seek for Checked<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }

    // candle asks before every text; a BufReader's `seek` would drop what it has read ahead.
    fn stream_position(&mut self) -> io::Result<u64> {
        self.file.stream_position()
    }
}
