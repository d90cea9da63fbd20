//! The nodes themselves: that they are apart where real nodes are, and share what real nodes share.

use copper_tests::cluster::Cluster;
use copper_tests::python;
use std::fs;

#[test]
fn nodes_share_the_origin_and_nothing_else() {
    let cluster = Cluster::with(3, &["--rails", "2"]);
    for node in 0..3 {
        let host = cluster.host(node);
        cluster.shell(
            node,
            "echo $(hostname) >/dev/shm/own; echo $(hostname) >/tmp/own",
        );
        assert_eq!(
            cluster.shell(node, "cat /dev/shm/own /tmp/own"),
            format!("{host}\n{host}\n")
        );
        let addresses = cluster.shell(node, "ip -brief -4 address | awk '{ print $1, $3 }'");
        for (rail, network) in [(0, 77), (1, 78)] {
            let card = format!("eth{rail}@");
            let address = format!("10.{network}.0.{}/24", node + 1);
            assert!(
                addresses
                    .lines()
                    .any(|line| line.starts_with(&card) && line.ends_with(&address)),
                "{addresses}"
            );
        }
    }
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "of the origin\n").unwrap();
    let origin = cluster.origin("origin", &source);
    let file = origin.mount().join("file");
    for node in 0..3 {
        let said = cluster.shell(node, &format!("cat {}", file.display()));
        assert_eq!(said, "of the origin\n");
    }
    let counts = origin.counts().unwrap();
    assert_eq!(
        counts.paths["file"][&slow_origin::Operation::Open],
        3,
        "{counts:?}"
    );
}

#[test]
fn names_resolve_on_the_nodes_and_nowhere_else() {
    let cluster = Cluster::up(2);
    let other = cluster.host(1);
    let code = format!(
        "import socket, time\n\
         print(socket.gethostbyname('{other}'))\n\
         start = time.monotonic()\n\
         try: print(socket.gethostbyname('no-such-host.example'))\n\
         except OSError: print('unknown', time.monotonic() - start < 0.5)\n"
    );
    let mut python = cluster.command(0, python::interpreter());
    let said = python.args(["-c", &code]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "10.77.0.2\nunknown True\n",
        "{said:?}"
    );
}

#[test]
fn a_pulled_cable_cuts_one_node_off() {
    const PORT: u16 = 5000;
    let cluster = Cluster::up(3);
    let listen = format!(
        "import socket\n\
         listener = socket.create_server(('', {PORT}))\n\
         while True: listener.accept()[0].close()\n"
    );
    let connects = |from: usize, to: usize| {
        let code = format!(
            "import socket, time\n\
             for _ in range(50):\n\
             \x20   try: print(socket.create_connection(('{}', {PORT}), 1) and 'reached'); break\n\
             \x20   except TimeoutError: print('lost'); break\n\
             \x20   except OSError: time.sleep(0.02)\n\
             else: print('lost')\n",
            cluster.host(to)
        );
        let mut python = cluster.command(from, python::interpreter());
        let said = python.args(["-c", &code]).output().unwrap();
        String::from_utf8_lossy(&said.stdout).trim() == "reached"
    };
    let mut listeners: Vec<_> = (0..3)
        .map(|node| {
            let mut python = cluster.command(node, python::interpreter());
            python.args(["-c", &listen]).spawn().unwrap()
        })
        .collect();
    assert!(connects(0, 1) && connects(1, 0));
    cluster.set_link(1, false);
    assert!(!connects(0, 1) && !connects(1, 0), "the cable is still in");
    assert!(
        connects(0, 2) && connects(1, 1),
        "more than one cable was pulled"
    );
    cluster.set_link(1, true);
    assert!(connects(0, 1) && connects(1, 0), "the cable is still out");
    drop(cluster);
    for listener in &mut listeners {
        // It was ended with its node.
        assert!(!listener.wait().unwrap().success());
    }
}
