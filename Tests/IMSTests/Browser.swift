import Glibc
import MATRuntime
import Testing

/// A headless Chromium that shows one page, spoken to over the Chrome DevTools Protocol by two pipes: JSON, each message with a zero octet behind.
/// Ended at the latest when the test forgets it.
final class Browser {
    static let program = "/usr/bin/chromium"
    static var isInstalled: Bool { access(program, X_OK) == 0 }

    private var pid: pid_t = 0
    private let commands: Int32, answers: Int32
    private var number: Int64 = 0
    private var session = ""
    private var read: [UInt8] = []
    /// What the page's scripts and the browser complained of.
    private(set) var complaints: [String] = []

    /// - Parameter directory: for its profile and log.
    init(_ url: String, directory: String) throws {
        var forBrowser: [Int32] = [0, 0]
        var fromBrowser: [Int32] = [0, 0]
        try #require(pipe(&forBrowser) == 0 && pipe(&fromBrowser) == 0)
        for descriptor in forBrowser + fromBrowser { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        (commands, answers) = (forBrowser[1], fromBrowser[0])
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // High first, so that neither lies in the other's way.
        let (low, high): (Int32, Int32) = (100, 101)
        posix_spawn_file_actions_adddup2(&actions, forBrowser[0], low)
        posix_spawn_file_actions_adddup2(&actions, fromBrowser[1], high)
        posix_spawn_file_actions_adddup2(&actions, low, 3)
        posix_spawn_file_actions_adddup2(&actions, high, 4)
        for descriptor in [STDOUT_FILENO, STDERR_FILENO] {
            posix_spawn_file_actions_addopen(&actions, descriptor, "\(directory)/browser.log", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        }
        let arguments = [
            Self.program, "--headless=new", "--no-sandbox", "--disable-gpu", "--user-data-dir=\(directory)/browser", "--remote-debugging-pipe",
            "--window-size=1280,1500", "about:blank",
        ]
        var strings: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for string in strings { free(string) } }
        let spawned = posix_spawn(&pid, Self.program, &actions, nil, &strings, environ)
        close(forBrowser[0])
        close(fromBrowser[1])
        try #require(spawned == 0)
        let target = try #require(ask("Target.createTarget", ["url": "about:blank"])["targetId"]?.string)
        session = try #require(ask("Target.attachToTarget", ["targetId": .string(target), "flatten": true])["sessionId"]?.string)
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] { _ = try ask(domain) }
        _ = try ask("Page.navigate", ["url": .string(url)])
    }

    deinit {
        close(commands)
        close(answers)
        // A browser whose pipe is closed ends; its helpers end with it.
        for _ in 0..<100 {
            if waitpid(pid, nil, WNOHANG) == pid { return }
            usleep(50_000)
        }
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
    }

    /// What the page is by now, as its scripts have made it.
    func document() throws -> String {
        // Nothing while one page gives way to another.
        try evaluate("document.documentElement?.outerHTML ?? \"\"")?.string ?? ""
    }

    /// What a script in the page comes to.
    @discardableResult
    func evaluate(_ script: String) throws -> JSONValue? {
        try ask("Runtime.evaluate", ["expression": .string(script), "returnByValue": true])["result"]?["value"]
    }

    /// How it looks, as PNG in base64.
    func picture(isDark: Bool) throws -> String {
        let features: JSONValue = [["name": "prefers-color-scheme", "value": .string(isDark ? "dark" : "light")]]
        _ = try ask("Emulation.setEmulatedMedia", ["features": features])
        return try #require(ask("Page.captureScreenshot", ["format": "png"])["data"]?.string)
    }

    private func ask(_ method: String, _ parameters: JSONValue = [:]) throws -> JSONValue {
        number += 1
        var message: [String: JSONValue] = ["id": .int(number), "method": .string(method), "params": parameters]
        if !session.isEmpty { message["sessionId"] = .string(session) }
        let octets = JSONValue.object(message).write() + [0]
        try #require(write(commands, octets, octets.count) == octets.count, "the browser has ended")
        for _ in 0..<10_000 {
            let answer = try next()
            if answer["id"]?.int == number { return try #require(answer["result"], "\(method): \(answer)") }
            switch answer["method"]?.string {
            case "Runtime.exceptionThrown"?, "Log.entryAdded"?, "Runtime.consoleAPICalled"?: complaints.append("\(answer)")
            default: break
            }
        }
        throw ControlError("the browser does not answer \(method)")
    }

    private func next() throws -> JSONValue {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            if let end = read.firstIndex(of: 0) {
                defer { read.removeSubrange(...end) }
                return try JSONValue.parse(read[..<end])
            }
            var waiting = pollfd(fd: answers, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, 20_000) > 0 else { throw ControlError("the browser says nothing for 20 s") }
            let count = Glibc.read(answers, &buffer, buffer.count)
            guard count > 0 else { throw ControlError("the browser has ended") }
            read += buffer.prefix(count)
        }
    }
}
