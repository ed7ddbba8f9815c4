// Reads an archived log with golang.org/x/mod/sumdb, which shares no code with ours: the note, every hash tile, every
// entry, inclusion proofs and consistency proofs.
//
// The two differ in names only: x/mod calls a tile tile/8/L/N, C2SP tlog-tiles calls it tile/L/N. Entry bundles are of
// C2SP alone: a length of two bytes before each entry.
//
// Arguments: directory of the log, verifier key. Prints size and root; ends with 1 at the first thing that does not hold.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type archive struct{ directory string }

func (archive) Height() int { return 8 }

func (archive) SaveTiles([]tlog.Tile, [][]byte) {}

func (a archive) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		name := "tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		bytes, err := os.ReadFile(filepath.Join(a.directory, name))
		if err != nil {
			return nil, err
		}
		all = append(all, bytes)
	}
	return all, nil
}

func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func entries(directory string, number, size int64) [][]byte {
	path := (tlog.Tile{H: 8, L: 0, N: number, W: 256}).Path()
	if width := size - number*256; width < 256 {
		path = (tlog.Tile{H: 8, L: 0, N: number, W: int(width)}).Path()
	}
	bytes, err := os.ReadFile(filepath.Join(directory, "tile/entries/"+strings.TrimPrefix(path, "tile/8/0/")))
	check(err, "entry bundle")
	var found [][]byte
	for len(bytes) >= 2 {
		length := int(binary.BigEndian.Uint16(bytes))
		if len(bytes) < 2+length {
			break
		}
		found, bytes = append(found, bytes[2:2+length]), bytes[2+length:]
	}
	if len(bytes) != 0 {
		check(fmt.Errorf("bytes are left over"), "entry bundle")
	}
	return found
}

func main() {
	if len(os.Args) != 3 {
		check(fmt.Errorf("directory and verifier key are needed"), "usage")
	}
	directory := os.Args[1]
	verifier, err := note.NewVerifier(os.Args[2])
	check(err, "verifier key")
	text, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	check(err, "checkpoint")
	signed, err := note.Open(text, note.VerifierList(verifier))
	check(err, "checkpoint")
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		check(fmt.Errorf("not the head of %s", verifier.Name()), "checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, "size")
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	check(err, "root")
	var root tlog.Hash
	copy(root[:], raw)
	tree := tlog.Tree{N: size, Hash: root}
	reader := tlog.TileHashReader(tree, archive{directory})
	whole, err := tlog.TreeHash(size, reader)
	check(err, "tree")
	if whole != root {
		check(fmt.Errorf("the tiles do not lead to the signed root"), "tree")
	}
	for number := int64(0); number*256 < size; number++ {
		for offset, entry := range entries(directory, number, size) {
			index := number*256 + int64(offset)
			stored, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			check(err, "leaf")
			if stored[0] != tlog.RecordHash(entry) {
				check(fmt.Errorf("entry %d is not the one of its tile", index), "leaf")
			}
			if index%37 == 0 || index+1 == size {
				proof, err := tlog.ProveRecord(size, index, reader)
				check(err, "inclusion proof")
				check(tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(entry)), "inclusion proof")
			}
			if index > 0 && index%101 == 0 {
				before, err := tlog.TreeHash(index, reader)
				check(err, "older tree")
				proof, err := tlog.ProveTree(size, index, reader)
				check(err, "consistency proof")
				check(tlog.CheckTree(proof, size, root, index, before), "consistency proof")
			}
		}
	}
	fmt.Printf("%d %s\n", size, lines[2])
}
