//! Work that may panic, on pictures of unknown origin: a panic becomes an error of that picture.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is within [`contained`].
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on this thread; a panic in it is an error with the panic's message, and is not reported anywhere else.
///
/// `work` must not wait for other threads' work, such as rayon's: what it ran of theirs would be silenced as well.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_CONTAINED.get() {
                report(panic);
            }
        }));
    });
    let before = IS_CONTAINED.replace(true);
    // What `work` may leave half-done is its own: decoders are dropped with it.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CONTAINED.set(before);
    result.map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_others_are_still_reported() {
        assert_eq!(contained(|| 3), Ok(3));
        let number = 7;
        assert_eq!(contained(|| -> u8 { panic!("planted {number}") }), Err("planted 7".into()));
        assert_eq!(contained(|| contained(|| -> u8 { panic!("inner") }).unwrap_err()), Ok("inner".into()));
        assert!(!IS_CONTAINED.get());
        assert!(contained(|| std::thread::spawn(|| IS_CONTAINED.get()).join().unwrap()) == Ok(false));
    }
}
