import Foundation
import Synchronization
import Testing

@testable import MATRuntime

/// Carries a result from the clients' thread back.
private final class Outcome<T: Sendable>: Sendable {
    let value = Mutex<T?>(nil)
}

/// Runs `clients` in a thread of its own while the loop serves, until it returns. The blocking client can't run in the
/// loop's thread.
private func serve<T: Sendable>(_ loop: EventLoop, while clients: @escaping @Sendable () -> T) throws -> T? {
    let outcome = Outcome<T>()
    // Handed to another thread only to come back through the poster.
    nonisolated(unsafe) let served = loop
    let poster = loop.poster
    Thread.detachNewThread {
        let result = clients()
        outcome.value.withLock { $0 = result }
        poster.post { served.stop() }
    }
    try loop.run()
    return outcome.value.withLock { $0 }
}

/// A path in a directory that goes away with this value.
private final class TemporaryPath {
    let directory = "/tmp/mat-control-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    var socket: String { directory + "/control.sock" }

    deinit {
        unlink(socket)
        rmdir(directory)
    }
}

private struct Echo: Encodable {
    let echo: JSONValue?
    let uid: UInt32
}

private func outcome(_ body: () throws(ControlError) -> JSONValue) -> Result<JSONValue, ControlError> {
    do throws(ControlError) { return .success(try body()) } catch { return .failure(error) }
}

@Suite("The control socket")
struct ControlTests {
    @Test("JSON that is nested too deep is refused at once, brackets within strings are not counted")
    func nesting() throws {
        let limit = JSONValue.depthMax
        func nested(_ depth: Int) -> [UInt8] { Array((String(repeating: "[", count: depth) + String(repeating: "]", count: depth)).utf8) }
        #expect(throws: Never.self) { try JSONValue.parse(nested(limit)) }
        #expect(throws: ControlError.self) { try JSONValue.parse(nested(limit + 1)) }
        #expect(throws: ControlError.self) { try JSONValue.parse(nested(30_000)) }
        let text = "\"" + String(repeating: "[{", count: 100) + "\\\"[\""
        #expect(try JSONValue.parse(Array(text.utf8)).string?.hasSuffix("\"[") == true)
    }

    @Test(
        "A text that is no JSON is refused with the place where it stops being so",
        arguments: [
            (#"{"command":"#, "it ends after octet 11, where a value must follow"), ("{x}", "octet 2 is x, where a key in quotes must stand"),
            ("[1 2]", "octet 4 is 2, where a comma or ] must stand"), (#"{"a":1}}"#, "octet 8 is }, where the end must stand"),
            (#"["\q"]"#, "octet 4 is q, where one of \"\\/bfnrtu must stand"), ("[01]", "octet 3 is 1, where a comma or ] must stand"),
            ("[nul]", "octet 5 is ], where null must stand"), ("[\"a\tb\"]", "octet 4 is of value 9"), ("", "it ends after octet 0"),
        ])
    func faults(text: String, reason: String) {
        #expect { try JSONValue.parse(Array(text.utf8)) } throws: { "\($0)".hasPrefix("not valid JSON: \(reason)") }
    }

    @Test("Every cut through a text that is JSON is found, and the text itself is in order")
    func cuts() {
        let text = Array(#"{"a":[1,-2.5e+3,true,false,null,"ü\u00e4\n\"/"],"b":{},"c":[],"d":0}"#.utf8)
        #expect(JSONFault.find(in: text) == nil)
        for count in text.indices { #expect(JSONFault.find(in: text.prefix(count))?.found == nil, "cut at \(count)") }
        for count in text.indices { #expect(JSONFault.find(in: text.prefix(count)) != nil, "cut at \(count)") }
    }

    @Test("A request gets its answer, at once or later, and the handler knows who asks")
    func answers() throws {
        let path = TemporaryPath()
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: path.socket) { request, respond in
            switch request.command {
            case "now": respond(.result(Echo(echo: try? request.arguments(as: JSONValue.self), uid: request.peerUID)))
            case "later": loop.schedule(after: .milliseconds(30)) { respond(.result("done")) }
            default: respond(.failed("unknown command \(request.command); try status"))
            }
        }
        defer { server.stop() }
        let socket = path.socket
        let results = try serve(loop) {
            ["now", "later", "nonsense"].map { command in
                outcome { () throws(ControlError) in
                    try ControlClient.request(
                        JSONValue.self, path: socket, command: command, arguments: ["a": [1, 2.5, nil, true, "ü\n\"/"]] as JSONValue)
                }
            }
        }
        #expect(
            results == [
                .success(["echo": ["a": [1, 2.5, nil, true, "ü\n\"/"]], "uid": .number(getuid())]),
                .success("done"),
                .failure(ControlError("unknown command nonsense; try status")),
            ])
    }

    @Test("Only owner and group may connect, and the file goes when the server stops")
    func modes() throws {
        let path = TemporaryPath()
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: path.socket, allowedGroup: "daemon") { _, _ in }
        var status = stat()
        #expect(lstat(path.socket, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o660)
        #expect(status.st_gid == 1)
        server.stop()
        #expect(lstat(path.socket, &status) != 0)
    }

    @Test("A group that doesn't exist is an error that says how to make it")
    func unknownGroup() throws {
        let path = TemporaryPath()
        let loop = try EventLoop()
        #expect(
            throws: ControlError("there is no group nosuchgroup; create it with groupadd --system nosuchgroup or name another")
        ) {
            try ControlServer(loop: loop, path: path.socket, allowedGroup: "nosuchgroup") { _, _ in }
        }
    }

    @Test("A dead daemon's socket is replaced, a living one's is not, and a plain file is left alone")
    func stale() throws {
        let path = TemporaryPath()
        let loop = try EventLoop()
        // Bound and closed without unlink, as a killed daemon leaves it.
        mkdir(path.directory, 0o755)
        let dead = try UnixSocket.make()
        #expect(try UnixSocket.withAddress(path.socket) { bind(dead, $0, $1) } == 0)
        close(dead)
        let server = try ControlServer(loop: loop, path: path.socket) { _, _ in }
        #expect(throws: ControlError("another process already serves \(path.socket); stop it first")) {
            try ControlServer(loop: loop, path: path.socket) { _, _ in }
        }
        #expect(access(path.socket, F_OK) == 0)
        server.stop()
        #expect(FileManager.default.createFile(atPath: path.socket, contents: nil))
        #expect(throws: ControlError.self) { try ControlServer(loop: loop, path: path.socket) { _, _ in } }
        #expect(access(path.socket, F_OK) == 0)
    }

    @Test("Without a daemon the client says how to start it")
    func notRunning() throws {
        #expect(
            throws: ControlError(
                "matd isn't running (no socket at /nowhere/matd/control.sock); start it with systemctl start matd",
                cause: .absent)
        ) {
            try ControlClient.request(JSONValue.self, path: "/nowhere/matd/control.sock", command: "status")
        }
    }

    @Test("A daemon of another version, whose answer can't be read, is there all the same")
    func otherVersion() throws {
        struct Report: Decodable, Sendable { var uptime: Int }
        let path = TemporaryPath()
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: path.socket) { _, respond in respond(.result(["uptime": "long"])) }
        defer { server.stop() }
        let socket = path.socket
        let failure = try serve(loop) { () -> ControlError? in
            do throws(ControlError) {
                _ = try ControlClient.request(Report.self, path: socket, command: "status", arguments: [String: Int](), daemon: "matd")
                return nil
            } catch {
                return error
            }
        }
        let error = try #require(failure ?? nil)
        #expect(!error.isUnreachable && error.description.contains("of one version"), "\(error)")
    }

    @Test("A daemon that doesn't answer in time is reported, and its late answer harms nobody")
    func timeout() throws {
        let path = TemporaryPath()
        let loop = try EventLoop()
        var late: ((ControlResponse) -> Void)?
        let server = try ControlServer(loop: loop, path: path.socket) { request, respond in
            if request.command == "slow" {
                late = respond
            } else {
                late?(.result("too late"))
                respond(.result("fine"))
            }
        }
        defer { server.stop() }
        let socket = path.socket
        let results = try serve(loop) {
            [
                outcome { () throws(ControlError) in
                    try ControlClient.request(JSONValue.self, path: socket, command: "slow", timeout: .milliseconds(50), daemon: "matd")
                },
                outcome { () throws(ControlError) in try ControlClient.request(JSONValue.self, path: socket, command: "quick") },
            ]
        }
        #expect(results == [.failure(ControlError("matd was asked, and gave no answer within 0.05 s", cause: .unanswered)), .success("fine")])
    }

    @Test("Garbage, an endless line and a client that never reads get an error or the door; others are served meanwhile")
    func badClients() throws {
        let path = TemporaryPath()
        let loop = try EventLoop()
        let big = JSONValue.string(String(repeating: "x", count: 4 << 20))
        let server = try ControlServer(loop: loop, path: path.socket) { request, respond in
            guard request.command != "a" else {
                do throws(ControlError) { _ = try request.arguments(as: [String: JSONValue].self) } catch {
                    return respond(.failed(error.description))
                }
                return respond(.result("fine"))
            }
            respond(.result(request.command == "big" ? big : "fine"))
        }
        defer { server.stop() }
        let socket = path.socket
        let results = try serve(loop) { () -> [String] in
            func raw(_ text: String, read: Bool = true) -> (Int32, String) {
                guard let descriptor = try? UnixSocket.make(), (try? UnixSocket.connect(descriptor, to: socket)) == 0 else {
                    return (-1, "")
                }
                var rest = Array(text.utf8)[...]
                _ = fcntl(descriptor, F_SETFL, 0)
                while !rest.isEmpty {
                    let count = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                    if count < 0 { break }
                    rest = rest.dropFirst(count)
                }
                guard read else { return (descriptor, "") }
                shutdown(descriptor, Int32(SHUT_WR))
                var answer = [UInt8]()
                var chunk = [UInt8](repeating: 0, count: 65536)
                while true {
                    let count = recv(descriptor, &chunk, chunk.count, 0)
                    if count <= 0 { break }
                    answer += chunk[..<count]
                }
                close(descriptor)
                return (-1, String(decoding: answer, as: UTF8.self))
            }
            let deaf = raw("{\"command\":\"big\"}\n", read: false).0
            defer { close(deaf) }
            var texts = [raw("garbage\n").1, raw("{\"command\":7}\n").1, raw("{\"command\":\"a\",\"arguments\":[]}\n").1]
            texts.append(raw("{\"command\":\"a\"}\n\n{\"command\":\"b\"}\n").1)
            texts.append(raw(String(repeating: "y", count: 100_000)).1)
            texts.append("\(raw("{\"command\":\"big\"}\n").1.utf8.count)")
            let after = outcome { () throws(ControlError) in try ControlClient.request(JSONValue.self, path: socket, command: "quick") }
            texts.append("\(after == .success("fine"))")
            return texts
        }
        let remedy = #"it is a line such as {"command":"status"}"#
        func failure(_ reason: String) -> String { String(decoding: ControlResponse.failed(reason).line, as: UTF8.self) + "\n" }
        #expect(
            results == [
                failure("the request can't be read: not valid JSON: octet 1 is g, where a value must stand; \(remedy)"),
                failure("the request can't be read: \"command\" is no string; \(remedy)"),
                failure("the arguments of a can't be read: \"arguments\" is no object; are both programs of one version?"),
                "{\"ok\":true,\"result\":\"fine\"}\n{\"ok\":true,\"result\":\"fine\"}\n",
                "{\"error\":\"the request is longer than 65536 bytes\",\"ok\":false}\n",
                "\((4 << 20) + 24)",
                "true",
            ])
    }

    @Test("A full house lets the longest idle client go")
    func fullHouse() throws {
        let path = TemporaryPath()
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: path.socket) { _, respond in respond(.result("fine")) }
        defer { server.stop() }
        let socket = path.socket
        let result = try serve(loop) {
            var idle: [Int32] = []
            for _ in 0..<ControlServer.clientsMax + 5 {
                guard let descriptor = try? UnixSocket.make() else { continue }
                for _ in 0..<100 where (try? UnixSocket.connect(descriptor, to: socket)) == EAGAIN { usleep(10_000) }
                idle.append(descriptor)
            }
            defer { for descriptor in idle { close(descriptor) } }
            return outcome { () throws(ControlError) in try ControlClient.request(JSONValue.self, path: socket, command: "status") }
        }
        #expect(result == .success("fine"))
    }
}
