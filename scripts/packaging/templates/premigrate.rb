class Premigrate < Formula
  desc "@DESCRIPTION@"
  homepage "@REPOSITORY@"
  version "@VERSION@"
  license "MIT"

@MACHINES@

  def install
    bin.install "premigrate"
    man1.install "man/premigrate.1"
    bash_completion.install "completions/premigrate.bash" => "premigrate"
    doc.install "THIRD-PARTY.txt"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/premigrate --version")
  end
end
