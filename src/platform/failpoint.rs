//! Failpoints at which a fault test makes a pod stand still.

use std::time::Duration;

use fail::fail_point;

/// In a fault test, stands still for `FAILPOINTS="<point>=return(<milliseconds>)"`, with every lock
/// and connection that is held there.
pub(crate) async fn stand_still(point: &str) {
    if let Some(duration) = standstill(point) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg_attr(not(feature = "failpoints"), expect(unused_variables))]
fn standstill(point: &str) -> Option<Duration> {
    fail_point!(point, |ms| ms?.parse().ok().map(Duration::from_millis));
    None
}
