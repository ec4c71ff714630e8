//! Energy of a CPU by its RAPL counters, as Linux shows them (Documentation/power/powercap in the kernel's sources).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where Linux shows the counters.
pub const POWERCAP: &str = "/sys/class/powercap";

/// The counters move about once a millisecond: power over less than this would be noise.
const SHORTEST_POWER: Duration = Duration::from_millis(5);

/// The processor packages and memories of this machine.
#[derive(Debug)]
pub struct Rapl {
    zones: Mutex<Vec<Zone>>,
    /// The last look at power: when, and the joules then.
    last: Mutex<Option<(Instant, f64)>>,
}

/// One counter, in microjoules, which starts again from 0 past its range.
#[derive(Debug)]
struct Zone {
    counter: PathBuf,
    range_uj: u64,
    last_uj: u64,
    total_uj: u64,
}

impl Rapl {
    /// Finds the counters below `folder`: packages, and memory where it has its own. What contains them (`psys`), what they contain
    /// (`core`, `uncore`) and what shows them a second time (`intel-rapl-mmio`) would count twice.
    ///
    /// # Errors
    /// Why there is none that can be read, for people.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let entries = std::fs::read_dir(folder)
            .map_err(|_| format!("this machine shows no energy counters in {}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let counted = |path: &PathBuf| {
            let zone = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("intel-rapl:"));
            let name = std::fs::read_to_string(path.join("name")).unwrap_or_default();
            zone && (name.starts_with("package") || name.trim() == "dram")
        };
        let zones =
            paths.iter().filter(|path| counted(path)).map(|path| Zone::open(path)).collect::<Result<Vec<_>, _>>()?;
        if zones.is_empty() {
            return Err(format!("no processor package has an energy counter in {}", folder.display()));
        }
        Ok(Rapl { zones: Mutex::new(zones), last: Mutex::new(None) })
    }

    /// Joules since the counters were opened.
    ///
    /// # Errors
    /// Which counter cannot be read, for people.
    pub fn joules(&self) -> Result<f64, String> {
        let mut total = 0;
        for zone in lock(&self.zones).iter_mut() {
            total += zone.read()?;
        }
        Ok(total as f64 / 1e6)
    }

    /// Mean power since the last call, watts; the first call waits a moment to have one.
    ///
    /// # Errors
    /// As [`joules`](Self::joules).
    pub fn watts(&self) -> Result<f64, String> {
        let mut last = lock(&self.last);
        let (since, before) = match *last {
            Some(known) => known,
            None => (Instant::now(), self.joules()?),
        };
        std::thread::sleep(SHORTEST_POWER.saturating_sub(since.elapsed()));
        let (now, joules) = (Instant::now(), self.joules()?);
        *last = Some((now, joules));
        Ok((joules - before) / now.duration_since(since).as_secs_f64())
    }
}

impl Zone {
    fn open(path: &Path) -> Result<Self, String> {
        let counter = path.join("energy_uj");
        let range_uj = number(&path.join("max_energy_range_uj"))?;
        let last_uj = number(&counter)?;
        Ok(Zone { counter, range_uj, last_uj, total_uj: 0 })
    }

    /// Microjoules since it was opened. To be read at least once in each turn of the counter, which takes minutes.
    fn read(&mut self) -> Result<u64, String> {
        let now = number(&self.counter)?;
        let turned = if now < self.last_uj { self.range_uj } else { 0 };
        self.total_uj += (now + turned).saturating_sub(self.last_uj);
        self.last_uj = now;
        Ok(self.total_uj)
    }
}

/// What a thread that died held is a number like any other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(path: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "; only the super-user may read it unless its mode is changed",
            _ => "",
        };
        format!("{} cannot be read ({error}){remedy}", path.display())
    })?;
    text.trim().parse().map_err(|_| format!("{} holds {:?}, not a number", path.display(), text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: u64 = 262_143_328_850;

    /// A machine of one package with memory, shown as Linux shows it.
    fn machine() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let zones = [
            ("intel-rapl:0", "package-0", 1_000_000),
            ("intel-rapl:0:0", "core", 400_000),
            ("intel-rapl:0:1", "dram", 2_000_000),
            ("intel-rapl:1", "psys", 9_000_000),
            ("intel-rapl-mmio:0", "package-0", 1_000_000),
        ];
        for (zone, name, energy) in zones {
            let path = folder.path().join(zone);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("name"), format!("{name}\n")).unwrap();
            std::fs::write(path.join("max_energy_range_uj"), format!("{RANGE}\n")).unwrap();
            std::fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
        }
        std::fs::create_dir(folder.path().join("intel-rapl")).unwrap();
        folder
    }

    fn set(machine: &tempfile::TempDir, zone: &str, uj: u64) {
        std::fs::write(machine.path().join(zone).join("energy_uj"), format!("{uj}\n")).unwrap();
    }

    #[test]
    fn packages_and_memory_are_counted_once() {
        let machine = machine();
        let rapl = Rapl::open(machine.path()).unwrap();
        assert_eq!(rapl.joules(), Ok(0.0));
        for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1", "intel-rapl-mmio:0"] {
            set(&machine, zone, 5_000_000);
        }
        // 4 J of the package and 3 J of the memory.
        assert_eq!(rapl.joules(), Ok(7.0));
    }

    #[test]
    fn a_counter_that_starts_again_loses_nothing() {
        let machine = machine();
        set(&machine, "intel-rapl:0", RANGE - 1_500_000);
        let rapl = Rapl::open(machine.path()).unwrap();
        set(&machine, "intel-rapl:0", 500_000);
        assert_eq!(rapl.joules(), Ok(2.0));
        set(&machine, "intel-rapl:0", 1_500_000);
        assert_eq!(rapl.joules(), Ok(3.0));
    }

    #[test]
    fn power_is_energy_over_the_time_since_the_last_look() {
        let machine = machine();
        let rapl = Rapl::open(machine.path()).unwrap();
        assert_eq!(rapl.watts(), Ok(0.0));
        let began = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        set(&machine, "intel-rapl:0", 2_000_000);
        let watts = rapl.watts().unwrap();
        assert!(watts > 1.0 / began.elapsed().as_secs_f64() / 2.0 && watts <= 50.0, "{watts}");
    }

    #[test]
    fn what_cannot_be_read_has_a_reason() {
        let absent = Rapl::open(Path::new("/no/such/folder")).unwrap_err();
        assert!(absent.contains("/no/such/folder"), "{absent}");
        let empty = tempfile::tempdir().unwrap();
        assert!(Rapl::open(empty.path()).unwrap_err().contains("no processor package"));
        let machine = machine();
        std::fs::write(machine.path().join("intel-rapl:0/energy_uj"), "many").unwrap();
        let damaged = Rapl::open(machine.path()).unwrap_err();
        assert!(damaged.contains("energy_uj") && damaged.contains("many"), "{damaged}");
        std::fs::remove_file(machine.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert!(Rapl::open(machine.path()).unwrap_err().contains("cannot be read"));
    }
}
