//! With what authority a satellite is changed: who asks, and which part of the fleet that reaches.

use crate::domain::access::Selector;
use crate::log::audit::Author;

/// Who changes a satellite. What a caller reaches was asked before its request was let in; the satellite may have moved
/// since. So each change asks once more, in the statement that locks the satellite's row: a lock that was waited for looks
/// at the row as it is by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Who it is in the records, and from where.
    pub author: Author,
    /// Outside of it there are no satellites.
    pub selector: Selector,
}
