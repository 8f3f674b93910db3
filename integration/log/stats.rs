//! Statistics of a satellite: since when it has its status, how often that changed, and how long it was up.

use crate::harness::{CALM, Fleet, Satellite};

#[tokio::test]
async fn a_satellites_stats_tell_since_when_how_often_and_how_long() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let stats = format!("/v1/satellites/{}/stats", credentials.id);
    assert_eq!(pod.get(&stats).await.status, 404, "it has never connected");

    Satellite::connect(pod.address, &credentials).await.close().await;
    let gone = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &gone).await;
    let _back = Satellite::connect(pod.address, &credentials).await;
    let history = pod.get(&format!("/v1/satellites/{}/transitions", credentials.id)).await.json();
    let occurred = |n: usize| history["transitions"][n]["occurredAt"].clone();

    let status = pod.get(&format!("{stats}?field=status&window=1h")).await.json();
    assert_eq!(status["value"], "online");
    assert_eq!(status["inStateSince"], occurred(2));
    assert_eq!(status["transitionCount"], 3);
    let ms = |name: &str| status[name].as_i64().expect("milliseconds");
    assert!(ms("inStateForMs") >= 0);
    assert_eq!(ms("upMs") + ms("downMs") + ms("unknownMs"), 3_600_000);
    assert!(ms("unknownMs") > 3_000_000, "nothing is known of the time before: {status}");

    let name = pod.get(&format!("{stats}?field=name")).await.json();
    assert_eq!((name["value"].as_str(), name["transitionCount"].as_u64()), (Some("edge"), Some(1)));
    assert_eq!(name["inStateSince"], occurred(0));

    for question in ["field=colour", "window=soon", "window=9999d"] {
        assert_eq!(pod.get(&format!("{stats}?{question}")).await.status, 422, "{question}");
    }
    assert_eq!(pod.get("/v1/satellites/nobody/stats").await.status, 404);
    fleet.check().await;
}
