//! A clock that acts when work takes too long: whoever waits for a device that hangs cannot.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Calls a function once the time it was last given is over.
pub struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    deadline: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Watchdog {
    /// Not armed; `act` runs on a thread of its own, at most once.
    pub fn new(act: impl FnOnce() + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let watched = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut deadline = watched.lock();
            loop {
                let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                deadline = match left {
                    Some(Duration::ZERO) => break,
                    Some(left) => watched.changed.wait_timeout(deadline, left).map_or_else(|e| e.into_inner().0, |(guard, _)| guard),
                    None => watched.changed.wait(deadline).unwrap_or_else(PoisonError::into_inner),
                };
            }
            drop(deadline);
            act();
        });
        Watchdog { shared }
    }

    /// From now on `limit` is left, whatever was left before.
    pub fn arm(&self, limit: Duration) {
        self.set(Some(Instant::now() + limit));
    }

    /// There is no limit any more.
    pub fn disarm(&self) {
        self.set(None);
    }

    fn set(&self, deadline: Option<Instant>) {
        *self.shared.lock() = deadline;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn it_acts_once_the_time_is_over() {
        let (sender, receiver) = mpsc::channel();
        let watchdog = Watchdog::new(move || sender.send(()).unwrap_or_default());
        watchdog.arm(Duration::from_millis(1));
        assert!(receiver.recv_timeout(Duration::from_secs(20)).is_ok());
    }

    #[test]
    fn it_does_not_act_before_or_when_disarmed() {
        let (sender, receiver) = mpsc::channel();
        let watchdog = Watchdog::new(move || sender.send(()).unwrap_or_default());
        watchdog.arm(Duration::from_secs(3600));
        watchdog.arm(Duration::from_millis(200));
        watchdog.disarm();
        assert!(receiver.recv_timeout(Duration::from_millis(400)).is_err());
    }
}
