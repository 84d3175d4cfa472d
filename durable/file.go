// Package durable replaces files so that a crash loses nothing that was promised.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace puts data in the place of the file at path. After a crash the old or the
// new content is there, after a return without error the new one. It uses the name
// path.new meanwhile; one writer at a time may replace a file. Errors are those of
// os.
func Replace(path string, data []byte) error {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
