import Glibc
import Namespaces
import Testing

@Suite("Processes")
struct ChildTests {
    @Test("A command's exit status and both its outputs come back")
    func result() throws {
        let result = try runCommand(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])
        #expect(result.status == 3 && result.output == "out\nerr\n")
    }

    @Test("A signal that ends a command is told from an exit status")
    func signalled() throws { #expect(try runCommand(["/bin/sh", "-c", "kill -TERM $$"]).status == -SIGTERM) }

    @Test("Input of any length is read while output of any length is written")
    func largeInput() throws {
        let text = String(repeating: "0123456789abcdef\n", count: 50_000)
        #expect(try runCommand(["cat"], input: text).output == text)
    }

    @Test("A command that takes too long is killed, and what it wrote is told")
    func tooLong() throws {
        let start = monotonicSeconds()
        let error = #expect(throws: ShellError.self) { try runCommand(["/bin/sh", "-c", "echo begun; exec sleep 60"], within: 0.3) }
        #expect(monotonicSeconds() - start < 10)
        #expect(error?.description.contains("begun") == true, "\(String(describing: error))")
    }

    @Test("What a command leaves behind with its output open does not keep the caller waiting")
    func leftBehind() throws {
        let start = monotonicSeconds()
        let result = try runCommand(["/bin/sh", "-c", "sleep 5 & echo done"])
        #expect(result.output == "done\n" && monotonicSeconds() - start < 4)
    }

    @Test("A program that is not there is an error with its name")
    func missing() {
        let error = #expect(throws: ShellError.self) { try runCommand(["/nonexistent/program"]) }
        #expect(error?.description.contains("/nonexistent/program") == true)
    }

    @Test("SIGTERM reaches a child whatever the thread that started it had blocked")
    func signalMask() throws {
        var set = sigset_t()
        var before = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGTERM)
        pthread_sigmask(SIG_BLOCK, &set, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        let child = try Child(["sleep", "60"])
        #expect(child.isRunning)
        #expect(child.end(SIGTERM) == -SIGTERM)
        #expect(!child.isRunning)
    }

    @Test("A child has none of this program's descriptors but its three")
    func descriptors() throws {
        let descriptor = open("/dev/null", O_RDONLY)
        defer { close(descriptor) }
        // The listing's own descriptor of the directory comes on top.
        #expect(try shell("ls /proc/self/fd | wc -l").split(separator: "\n").first == "4")
    }

    @Test("A child ends with its value, unless it has a session of its own")
    func lifetime() throws {
        let short = try { try Child(["sleep", "60"]).pid }()
        #expect(kill(short, 0) != 0)
        let long = try { try Child(["sleep", "60"], inNewSession: true).pid }()
        #expect(kill(long, 0) == 0)
        kill(long, SIGKILL)
        var status: Int32 = 0
        waitpid(long, &status, 0)
    }
}
