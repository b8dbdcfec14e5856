import Glibc
import MATRuntime
import MATSignal

/// What a node keeps across restarts: the highest sequence it signed for each HoA, and renewed certificates. Each file is
/// replaced whole, so a crash leaves the old or the new one.
struct StateDirectory {
    let path: String

    /// Makes the directory if it isn't there.
    init(path: String) throws(SystemError) {
        self.path = path
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw SystemError("make the state directory \(path)") }
        guard access(path, W_OK) == 0 else { throw SystemError("write to the state directory \(path)") }
    }

    private func sequencePath(_ hoa: HomeAddress) -> String { "\(path)/\(hoa).sequence" }
    func certificatePath(_ hoa: HomeAddress) -> String { "\(path)/\(hoa).certificate" }

    /// 0 if none was kept, or the file is no number: the protocol's clock rule and code 5 make up for that.
    func sequence(of hoa: HomeAddress) -> UInt64 {
        guard let text = try? TextFile.read(sequencePath(hoa), octetsMax: 64) else { return 0 }
        return UInt64(text.filter { !$0.isWhitespace }) ?? 0
    }

    func keep(_ sequence: UInt64, of hoa: HomeAddress) throws(SystemError) {
        try TextFile.replace(sequencePath(hoa), with: "\(sequence)\n", mode: 0o600)
    }
}
