//! Tests of what has to hold whether pods vouch for satellites that beat or write each heartbeat.
//!
//! In every test pods vouch, as in the field. Such a test is named once more in [`written`], which runs it with
//! `GROUNDSTATION_VOUCH_WINDOW=0`.

use std::cell::Cell;

thread_local! {
    /// A test makes its fleets on its own thread.
    static ARE_WRITTEN: Cell<bool> = const { Cell::new(false) };
    static FLEETS: Cell<u32> = const { Cell::new(0) };
}

/// Whether the fleet that is made now writes every heartbeat.
pub(super) fn are_written() -> bool {
    FLEETS.set(FLEETS.get() + 1);
    ARE_WRITTEN.get()
}

/// Runs a test whose fleets write every heartbeat.
pub fn run_written(test: fn()) {
    /// The next test may run on the same thread.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ARE_WRITTEN.set(false);
        }
    }
    let _reset = Reset;
    ARE_WRITTEN.set(true);
    FLEETS.set(0);
    test();
    assert!(FLEETS.get() > 0, "its fleet was made elsewhere: it is the same test twice");
}

/// Runs these tests of this file once more, with every heartbeat written.
macro_rules! written {
    ($($(#[$attribute:meta])* $test:ident),+ $(,)?) => {
        mod written {
            $(
                #[test]
                $(#[$attribute])*
                fn $test() {
                    crate::harness::written::run_written(super::$test);
                }
            )+
        }
    };
}
pub(crate) use written;
