//! Startup packets of every bad shape: read whole or not at all, and passed on as they came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwitness_protocol::options;
use pgwitness_protocol::startup::{self, Decided, Packet};

const OWN: &str = "pgwitness.login";

fuzz_target!(|data: &[u8]| {
    let Ok(Some((packet, length))) = startup::read(data) else { return };
    assert!((8..=startup::MAX_STARTUP).contains(&length) && length <= data.len());
    for end in 0..length {
        assert_eq!(startup::read(&data[..end]), Ok(None), "a part of a packet was read");
    }
    assert_eq!(startup::read(&data[..length]), Ok(Some((packet.clone(), length))), "what follows was read");
    let Packet::Start(message) = packet else { return };
    let decided = Decided { user: "role", database: "database", application_name: None, own_option: OWN };
    let sent = message.encode_for_server(&decided);
    let Ok(Some((Packet::Start(heard), all))) = startup::read(&sent) else {
        // Only the role and database decided here can have made it too long.
        assert!(sent.len() > startup::MAX_STARTUP, "what we send cannot be read");
        return;
    };
    assert_eq!(all, sent.len());
    assert_eq!((heard.get("user"), heard.get("database")), (Some(&b"role"[..]), Some(&b"database"[..])));
    let passed = |name: &[u8]| {
        !name.starts_with(b"_pq_.")
            && !matches!(name, b"user" | b"database" | b"options")
            && !name.eq_ignore_ascii_case(OWN.as_bytes())
    };
    let kept: Vec<_> = message.parameters.iter().filter(|(name, _)| passed(name)).collect();
    let there: Vec<_> = heard.parameters.iter().filter(|(name, _)| passed(name)).collect();
    // Options lose our own, and are as they were if they had none.
    for (_, value) in heard.parameters.iter().filter(|(name, _)| name == "options") {
        assert_eq!(options::without(value, OWN), value[..], "our own option is still there");
        assert!(options::settings(value).len() <= value.len());
    }
    assert_eq!(there, kept, "the client's own settings were changed");
    assert_eq!(heard.protocol_options().count(), 0);
});
