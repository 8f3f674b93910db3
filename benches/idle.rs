//! The memory that an idle authenticated satellite costs a pod: resident bytes with more and more
//! real sockets that send a heartbeat now and then.

use std::time::Duration;

use crate::Scale;
use crate::pod::{Pod, Simulator, sockets_allowed};
use crate::stores::Stores;
use crate::table::{self, figure, mib, note};

/// Long enough for the allocator to give back the memory of connecting, and for heartbeats of all
/// satellites.
const REST: Duration = Duration::from_secs(25);

pub fn measure(scale: Scale) {
    let stores = Stores::start();
    let (pod, _) = Pod::start(&stores, "bench");
    let rest = scale.choose(REST, Duration::from_millis(200));
    // These satellites connect and leave: memory that a pod allocates once belongs to no satellite.
    let warm_up = Simulator::start(&pod, "warm", scale.choose(500, 10), "10s");
    pod.reached("groundstation_sessions", scale.choose(500.0, 10.0));
    warm_up.end();
    pod.reached("groundstation_sessions", 0.0);
    std::thread::sleep(rest);
    let empty = pod.cost().resident_bytes;

    table::section("Memory of one pod with idle satellites (a heartbeat every 10 s)");
    figure("none", mib(empty), "");
    let most = 50_000.min(sockets_allowed());
    let steps: &[usize] = scale.choose(&[1_000, 10_000, 50_000], &[20]);
    let mut fleet = Vec::new();
    let mut there = 0;
    for satellites in steps.iter().map(|step| *step.min(&most)) {
        fleet.push(Simulator::start(
            &pod,
            &format!("idle-{satellites}"),
            satellites - there,
            "10s",
        ));
        there = satellites;
        pod.reached("groundstation_sessions", satellites as f64);
        std::thread::sleep(rest);
        let resident = pod.cost().resident_bytes;
        let each = resident.saturating_sub(empty) / satellites as u64;
        figure(&format!("{satellites}: each {each} bytes"), mib(resident), "8,192 bytes");
    }
    if most < 50_000 {
        note(&format!("a process may have no more than {most} sockets here"));
    }
}
